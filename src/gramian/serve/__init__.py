"""A model on the network: an HTTP API, a page, and a store of the ratings that come back. Needs the extra ``serve``."""
