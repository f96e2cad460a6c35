// Import the widget's module once per page and version: a module can never be unloaded, and
// anywidget imports one for every widget that is made.
const modules = (globalThis.llmServingToolkit ??= {});
export default {
  async render(context) {
    const key = context.model.get("_module_key");
    modules[key] ??= (async () => {
      const url = URL.createObjectURL(
        new Blob([context.model.get("_module")], { type: "text/javascript" }),
      );
      try {
        return await import(/* webpackIgnore: true */ url);
      } finally {
        URL.revokeObjectURL(url);
      }
    })();
    return (await modules[key]).default.render(context);
  },
};
