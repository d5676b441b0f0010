"""One interface to studies with two implementations, which return the same values.

    interface       what every client offers, in groups
    local/          on an open database
    remote/         through the API of a server
    wire_format     values as JSON
    problems        errors as problem details, and back
    stored_login    the server that `tune login` remembers

Faces use the interface. The API of a server calls the local client, so both do the same.
"""
