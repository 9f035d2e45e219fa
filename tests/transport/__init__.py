"""How requests are carried: the parts of our own wire one by one, and the engines as callers choose them."""
