"""A server for clients of OpenAI's API and of Anthropic's: starlette and uvicorn before one thread that owns MLX.

run.py          options -> a running server           settings.py   how a server is set up
connections.py  a client's connection, with deadlines app.py        the routes
access.py       who may ask                           bodies.py     request bodies, and room for them
dialects.py     the APIs: how each reads and answers  parsing.py    bytes -> a request
requests.py     what a request may hold               fields.py     what is not offered
service.py      the handlers                          answers.py    a request's answers, one after the other
prompt.py       a request -> token ids                history.py    messages that templates can take
options.py      a request -> decoding's options       calls.py      a request between loop and thread
engine.py       the thread, its queue                 events.py     what loop and thread tell each other
sessions.py     prompt caches kept between requests   reading.py    text -> content, reasoning, tool calls
reasonings.py   reasoning that comes back             replies.py    objects of chats and completions
conversation.py items of other APIs -> messages       blocks.py     answers of other APIs, block by block
messages_request.py, messages_reply.py                              Anthropic's API
responses_request.py, responses_tools.py, responses_reply.py        OpenAI's Responses
logprobs.py, json_response.py, errors.py, metrics.py
"""
