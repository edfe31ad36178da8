"""The web application: the HTTP API and the portal, composed for a server."""
