"""An OpenAI-compatible server over the runtime: safe without configuration. Needs [serve].

    bytes -> safety.Guard -> app (routes) -> answering.Answer -> forms, prompts -> queue -> worker
                                                 |                                           |
                                                answers (OpenAI's objects)  <-  runtime.Engine

app.py          routes; `create_app`             schemas.py      what requests may hold
safety.py       addresses, keys, bodies          errors.py       OpenAI's errors
prompts.py      requests -> token ids, pixels    images.py       data URLs and files below a folder
answering.py    a request on its way             answers.py      OpenAI's objects
queue.py        who is next                      worker.py       one engine, one thread
models.py       the bundles that are served      memory.py       which of them are in memory
logprobs.py     what else might have been said
metrics.py      figures for Prometheus           unsupported.py  what is refused, not ignored
run.py          sockets, signals, shutdown       settings.py     what the command line decides
forms.py        JSON schemas, tools              remote.py       pictures of trusted hosts
allocator.py    what is freed goes back          replies.py      what responses hold, for machines
web.py, web/    the page at /
"""
