"""From documents to tasks: questions with answers, each with the span of the source that proves it (`spoutnik data make`).

`reading` turns files into sections of text, `passages` cuts these, `teacher` asks a model, `journal` keeps what was answered,
`questions` reads and checks its replies, `making` walks from documents to rows and `report` counts what was dropped.
"""
