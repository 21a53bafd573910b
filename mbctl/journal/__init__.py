"""The log that holds every record of every topic, and memory, its twin without a disk."""
