"""Drawing indices from a prior, and their likelihood: functions of modules and arrays.

Nothing here knows files, configs or images. All of it is float32, and can be compiled.
"""
