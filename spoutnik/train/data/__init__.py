"""Users' data to fine-tune on: the shapes that people have (`shapes`), read from their files (`loading`), split by content
(`split`), and shown with what a model makes of it (`preview`)."""
