"""A page that counts its visitors."""
import os

from flask import Flask
from waitress import serve

app = Flask(__name__)
visits = 0


@app.get("/")
def index():
    global visits
    visits += 1
    return f"Hello! You are visitor number {visits}.\n"


@app.get("/health")
def health():
    return "ok\n"


if __name__ == "__main__":
    serve(app, port=int(os.environ["PORT"]))
