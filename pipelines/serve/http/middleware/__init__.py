"""What stands in front of the HTTP interface: hosts, keys and rates, room for requests, bodies, and a line for each."""
