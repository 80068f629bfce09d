"""What a notebook or a service of one's own uses: a loaded cascade, a classifier, a router."""
