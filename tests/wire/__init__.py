"""Differential tests: the same bytes from the same raw servers to our clients and to httpx's own, and the same result.

`plays` says what a server does, `origin` does it, `observing` takes down what a client made of it, `comparing` judges, and
`stricter` holds what we may do otherwise, and why. Written without a look at how our connections are made.
"""
