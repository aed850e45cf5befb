"""A model over HTTP: a page for people and a JSON API for programs, what `opsin serve` runs. Needs `opsin[serve]`.

A request's body is read into memory by `bodies`, its images are decoded by `given` in threads, `batching` puts those of
several requests into one batch for the model's own thread, `service` puts the answers together, `app` has the routes
and `server` the sockets. What a client may ask for stands in `schema`, what it may not in `limits`.
"""
