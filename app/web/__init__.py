"""The doors: the carrier's, the operators', and that of those who ask after our health. A door checks, asks below, and answers."""
