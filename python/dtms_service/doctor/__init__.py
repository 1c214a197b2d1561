"""``dtms doctor``: finds the usual faults and says how to mend each. It looks and changes nothing."""
