"""The revisions. One that has been released is never changed: a change of the tables is a new revision."""
