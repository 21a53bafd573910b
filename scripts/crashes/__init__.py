"""What kill loops and the tests of durability share: a ledger, a load, a server, bad disks."""
