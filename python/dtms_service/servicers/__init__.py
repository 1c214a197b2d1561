"""The RPCs: unpack, ask the desk, pack. No decision about a trade is taken here."""
