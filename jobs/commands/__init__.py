"""One module for each command of `kcm`: what it does, apart from how it is called and shown."""
