"""The HTTP API under `/api/v1`: thin routes over the local client. OpenAPI is derived from them.

api_app           the application of the API, which is mounted in that of the pages
api_requests      what routes get: the client of the user, the study of the path, entity tags
problem_details   errors as RFC 9457 has them
..._routes        routes by group of operations
"""
