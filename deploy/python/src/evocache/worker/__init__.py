"""A worker on diffusers: measures the candidates of an evocache coordinator in any pipeline whose transformer `attach`
knows or discovers.

    evocache-torch-worker --coordinator 127.0.0.1:7447 --model path/to/model --name emoji

`pipeline` runs the pipeline, `costs` counts, `metrics` scores, `evaluation` measures a candidate with these three, and
`agent` talks to the coordinator.
"""
