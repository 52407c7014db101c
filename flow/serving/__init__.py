"""`flow serve`: the links by which supporters and moderators accept or reject."""
