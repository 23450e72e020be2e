"""One small application per peer, all answering the same paths.

`/sse?n=` and `/ndjson?n=` stream n events as fast as they go, `/paced?n=&pace=` one event every pace seconds,
`/feed` subscribes to what `POST /publish` brings, `/replay` answers the history that `POST /fill?n=` made. A
peer leaves out what it is not measured at.
"""
