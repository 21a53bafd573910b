"""The asyncio face: the same verbs as coroutines, on one connection that many calls share."""
