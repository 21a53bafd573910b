"""The message systems that are measured: mbctl itself and its peers, all behind one interface."""
