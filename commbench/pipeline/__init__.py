"""What feeds a training step, stage by stage: `commbench pipeline`.

`stages` are what is timed, `measure` times them in turn and keeps every sample in a run file, and
`roofline` reads that back: the rate of each stage, and which of them bounds a run.

Source: NVIDIA's lecture on large-batch training, "Optimize the input pipeline": rates of file
reading, decoding and training on a DGX-1, and a roofline, the rates of the input as horizontal
lines over the batch size.
"""
