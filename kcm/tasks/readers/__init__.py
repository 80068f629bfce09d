"""Readers of sources: labelled rows from files, the hub, folders of pictures and pairs of picture and text."""
