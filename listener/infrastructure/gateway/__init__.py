"""What browsers, charts and monitors talk to: REST, and room for datafeeds and sockets."""
