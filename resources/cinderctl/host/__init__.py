"""The host: state directories, files, records, processes and their supervisor, ports.

What any part may need of the machine itself belongs here. Nothing here knows of clusters, Kubernetes, plans or specs.
"""
