"""A server for clients of OpenAI's API and of Anthropic's: starlette and uvicorn before one thread that owns MLX.

run.py          options -> a running server           settings.py   how a server is set up
connections.py  a client's connection, with deadlines app.py        the routes
access.py       who may ask                           bodies.py     request bodies, and room for them
parsing.py      bytes -> a request                    requests.py   what a request may hold
fields.py       what is not offered                   service.py    the handlers
prompt.py       a request -> token ids                history.py    messages that templates can take
options.py      a request -> decoding's options       calls.py      a request between loop and thread
engine.py       the thread, its queue                 events.py     what loop and thread tell each other
sessions.py     prompt caches kept between requests   reading.py    text -> content, reasoning, tool calls
reasonings.py   reasoning that comes back             messages_request.py, messages_reply.py  Anthropic's API
replies.py      OpenAI's objects                      logprobs.py, json_response.py, errors.py, metrics.py
"""
