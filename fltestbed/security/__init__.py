"""Who a server and a node are: a testbed's own CA, the server's certificate, the nodes' keys, and how each side checks them.

The server proves itself with a certificate that the testbed's CA has signed (TLS); a node proves itself with Flower's signed
headers, whose public key the server has on its list. Nothing here knows of HTTP or of Flower.
"""
