"""The model as a picture: from IR to boxes and edges (`build`), to places (`layout`), to SVG (`svg`)."""
