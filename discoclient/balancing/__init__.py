"""Which one? Endpoints with what we learnt of them, and the pickers that choose. Pure: time and chance are arguments."""
