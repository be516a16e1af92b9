# A layer as it must not be: without a docstring, and this file has none either.


class Layer:
    def __init__(self, shape: tuple[int, ...]) -> None:
        self.output_shape = shape
