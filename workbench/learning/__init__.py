"""One iteration: from the settings to the phases, each from one immutable state to the next."""
