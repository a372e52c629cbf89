import modal

app = modal.App("hello", image=modal.Image.debian_slim(python_version="3.11"))


@app.function()
def hello(name):
    print(f"greeting {name}")
    return f"hello, {name}"


@app.local_entrypoint()
def main():
    print(hello.remote("harbour"))
