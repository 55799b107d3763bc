"""Records, interfaces and the clock: the words in which the stations speak. Needs numpy only."""
