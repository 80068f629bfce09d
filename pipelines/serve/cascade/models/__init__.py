"""Encoder, small side and large model of a service, and the queues in front of them."""
