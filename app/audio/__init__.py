"""THE SOUND: G.711 and the way between the line's 8 kHz and the model's 24 kHz. Arithmetic only: no socket, no clock, no call.

`path` is the door: one `AudioPath` a call, made by `audio_path(name)`.
"""
