"""The HTTP interface: routes, keys, limits and the page."""
