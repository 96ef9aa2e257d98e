"""The demo as a Space of the Hugging Face Hub: upload this folder."""

from kornia_ditf.demo.app import build

page = build(["nano"])

if __name__ == "__main__":
    page.launch()
