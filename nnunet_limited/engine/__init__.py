"""The machine room: what every trainer shares."""
