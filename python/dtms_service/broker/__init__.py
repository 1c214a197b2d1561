"""The broker side: the door that the executor uses, and the embedded paper broker behind it."""
