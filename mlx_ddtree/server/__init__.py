"""An OpenAI-compatible server: starlette and uvicorn in front of one thread that owns MLX.

app.py        the routes                             access.py    who may ask
requests.py   what a body may hold                   prompt.py    messages -> token ids
calls.py      a request between loop and thread      engine.py    the thread, its queue
sessions.py   prompt caches kept between requests    reading.py   text -> content, reasoning, tool calls
replies.py    OpenAI's objects, with logprobs.py and json_response.py on the wire
errors.py     refusals      metrics.py   Prometheus      run.py   options -> a running server
"""
