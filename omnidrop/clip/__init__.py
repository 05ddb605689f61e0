"""Reads a media file: frames, audio, patches and log-mel. The only user of PyAV.

`clip` opens a file, `sampling` decides which frames are read (the fps), `frames` decodes them,
`audio` decodes the sound, `patches` and `log_mel` make what the encoders read. What a model asks of
media comes in as `specs`.
"""
