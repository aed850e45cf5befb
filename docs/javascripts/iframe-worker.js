// The search of the theme runs in a worker, which browsers refuse to pages that are opened as files: there it runs in a
// hidden frame. The name of this file keeps the theme's offline plugin from fetching another one from a server.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.answer = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      const script = "<script>postMessage = (data) => frameElement.answer(data)</scr" + "ipt>";
      frame.srcdoc = `${script}<script src="${new URL(url, location)}"></scr` + "ipt>";
      this.ready = new Promise((resolve) => frame.addEventListener("load", () => resolve(frame.contentWindow)));
      document.body.append(frame);
    }

    postMessage(data) {
      this.ready.then((inside) => inside.dispatchEvent(new inside.MessageEvent("message", { data })));
    }
  };
}
