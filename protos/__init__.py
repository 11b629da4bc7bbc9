"""The wire: *.proto and the code generated from them."""
