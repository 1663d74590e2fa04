"""An OpenAI-compatible server: starlette and uvicorn in front of one thread that owns MLX.

requests.py   what a body may hold            prompt.py    messages -> token ids
engine.py     the thread, its queue           sessions.py  prompt caches kept between requests
reading.py    text -> content, reasoning, tool calls
replies.py    OpenAI's objects                calls.py     a request between the event loop and the thread
app.py        routes                          access.py    who may ask           metrics.py   Prometheus
"""
