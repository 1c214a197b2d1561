"""Universal Manager: stops by the rules of each strategy, by proposals to DTMS. `command.main` is its entry."""
